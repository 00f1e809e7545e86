"""Prompts in three dimensions for a two-dimensional decoder.

SAM's prompt encoder (Kirillov et al. 2023, sec. 3) embeds points and box corners in the image plane. Here
every prompt also carries its offset along the slice stack, so one 3D box or one click informs all slices,
each at its own distance. The same prompts are drawn into the dense embedding as soft rasters, as interactive
segmentation nets without a pretrained prompt encoder do (RITM, ScribblePrompt): from scratch, sparse tokens
alone take far longer to be obeyed.
"""

import torch
from torch import Tensor, nn

from .segment_anything_modeling import PromptEncoder

INPUT_SIZE = 256
PADDING, NEGATIVE, POSITIVE, BOX_LOW, BOX_HIGH = -1, 0, 1, 2, 3
CLICK_RADIUS = 6.0  # pixels of the 256-pixel region; RITM and SimpleClick use disks of 5 at 400-448 pixels
CLICK_DEPTH = 16.0  # how far, in the same pixels, a click reaches into neighboring slices
RASTERS = 6  # box, depth position in the box, "has box", positive clicks, negative clicks, previous mask


class SpatialPromptEncoder(PromptEncoder):
    """Points [N, P, 3] with labels [N, P], and a previous mask -> sparse tokens and dense embedding.

    Coordinates are (x, y, depth) in pixels of the 256-pixel region, depth being relative to the slice that is
    decoded. Labels: -1 padding, 0 negative, 1 positive, 2 and 3 the low and high corner of the box.
    """

    def __init__(self, dim: int = 128, embedding_size: int = 64) -> None:
        super().__init__(
            embed_dim=dim,
            image_embedding_size=(embedding_size, embedding_size),
            input_image_size=(INPUT_SIZE, INPUT_SIZE),
            mask_in_chans=16,
        )
        self.depth_embedding = nn.Sequential(nn.Linear(4, 64), nn.GELU(), nn.Linear(64, dim))
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(RASTERS, 32, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, dim, kernel_size=1),
        )
        # The rasters say whether there is a mask, so SAM's separate "no mask" embedding has no work left.
        del self.no_mask_embed

    def forward(self, points: Tensor, labels: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """`masks`: previous logits at embedding resolution [N, 1, h, w], zeros where there are none.

        Returns tokens [N, P, dim] and an embedding [N, dim, h, w].
        """
        return self._sparse(points, labels), self.mask_downscaling(self._rasters(points, labels, masks))

    def _sparse(self, points: Tensor, labels: Tensor) -> Tensor:
        position: Tensor = self.pe_layer._pe_encoding(points[..., :2] / INPUT_SIZE)
        depth = points[..., 2:] / INPUT_SIZE
        features = torch.cat(
            [depth, depth.abs(), torch.exp(-8 * depth.abs()), torch.exp(-32 * depth.abs())], -1
        )
        position = position + self.depth_embedding(features)
        kinds = torch.stack([embedding.weight[0] for embedding in self.point_embeddings])
        is_prompt = (labels >= 0).unsqueeze(-1)
        kind = kinds[labels.clamp(min=0).long()]
        return torch.where(is_prompt, position + kind, self.not_a_point_embed.weight[0])

    def _rasters(self, points: Tensor, labels: Tensor, masks: Tensor) -> Tensor:
        height, width = masks.shape[-2:]
        x = (torch.arange(width, device=points.device, dtype=points.dtype) + 0.5) * (INPUT_SIZE / width)
        y = (torch.arange(height, device=points.device, dtype=points.dtype) + 0.5) * (INPUT_SIZE / height)
        low = (points * (labels == BOX_LOW).unsqueeze(-1)).sum(1)
        high = (points * (labels == BOX_HIGH).unsqueeze(-1)).sum(1)
        has_box = (labels == BOX_LOW).any(1).to(points.dtype)[:, None, None]
        inside_x = _inside(x[None], low[:, 0:1], high[:, 0:1])
        inside_y = _inside(y[None], low[:, 1:2], high[:, 1:2])
        box = has_box * inside_y[:, :, None] * inside_x[:, None, :]
        # 0 outside the box along the stack, 1 well inside: thin ends of a bone are where masks go wrong.
        depth_margin = torch.minimum(-low[:, 2], high[:, 2])[:, None, None]
        depth = box * torch.sigmoid(depth_margin / 4.0)
        clicks = [_clicks(x, y, points, labels == sign) for sign in (POSITIVE, NEGATIVE)]
        flag = has_box.expand_as(box)
        return torch.cat([torch.stack([box, depth, flag, *clicks], 1), torch.tanh(masks / 4.0)], 1)


def _inside(coordinate: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Soft indicator of [low, high], two pixels wide at the edges so that sub-cell box edges are seen."""
    return torch.sigmoid((coordinate - low) / 1.5) * torch.sigmoid((high - coordinate) / 1.5)


def _clicks(x: Tensor, y: Tensor, points: Tensor, chosen: Tensor) -> Tensor:
    """Gaussian spots [N, h, w] at the chosen points, fading with their distance along the stack."""
    across_x = torch.exp(-(((x[None, None] - points[..., 0:1]) / CLICK_RADIUS) ** 2))
    across_y = torch.exp(-(((y[None, None] - points[..., 1:2]) / CLICK_RADIUS) ** 2))
    strength = torch.exp(-((points[..., 2] / CLICK_DEPTH) ** 2)) * chosen.to(points.dtype)
    return torch.einsum("np,nph,npw->nhw", strength, across_y, across_x)
