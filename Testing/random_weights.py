"""A network whose weights are random but of sensible size, so that nothing cancels out or saturates."""

import torch

from BoneSAMLib.model.bonesam import BoneSAM
from BoneSAMLib.model.kind_prompt import KindPrompt


def random_model():
    """The same network at every call, ready for use, its batch norms not yet fused."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BoneSAM()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                # Fresh norms do nothing, and those of the residual blocks block everything.
                torch.nn.init.uniform_(module.weight, 0.8, 1.2)
                torch.nn.init.normal_(module.bias, 0, 0.1)
                torch.nn.init.normal_(module.running_mean, 0, 0.1)
                torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            if isinstance(module, KindPrompt):
                # A network that has not learned names is silent there.
                torch.nn.init.normal_(module.token)
                torch.nn.init.normal_(module.everywhere)
    return model.eval().requires_grad_(False)
