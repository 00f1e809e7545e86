"""What the module's help section says."""

from slicer.i18n import tr as _

__all__ = ["acknowledgementText", "helpText"]


def helpText() -> str:
    """HTML. Every paragraph is a text of its own for the translators."""
    steps = (
        _(
            "Choose the <b>volume</b>: CT, MR or X-ray. The Sample Data module has three scans to"
            " try, under BoneSAM."
        ),
        _(
            "Press <b>Box</b> and draw a box around one bone, with two clicks in a slice. In the "
            "other slices, drag its sides until the whole bone is inside. A box on one slice only"
            " is carried through the bone."
        ),
        _(
            "Look at the mask. Press <b>+ point</b> and click where bone is missing, <b>- "
            "point</b> and click where the mask is wrong. <b>Undo</b> takes back the last step."
        ),
        _("The list <b>slices to review</b> jumps to the slices that most need a look."),
        _(
            "<b>Accept</b> makes the mask a segment; more clicks then correct it. <b>Next "
            "bone</b> begins another one."
        ),
        _(
            "<b>All bones</b> finds every bone without a prompt, <b>Find</b> those that a text names. In "
            "CT and MR both give names: check them, above all sides and numbers. Bones that touch may come "
            "out as one."
        ),
    )
    paragraphs = (
        _(
            "BoneSAM segments bones from a box, a few clicks, or no prompt at all. <b>It is for "
            "research, not for diagnosis: look at every mask before you use it.</b>"
        ),
        "<ol>{steps}</ol>".format(steps="".join(f"<li>{step}</li>" for step in steps)),
        _(
            "With <b>Live</b> on, every prompt updates the mask; with it off, <b>Segment</b> "
            "does. Point at a button to see its keyboard shortcut."
        ),
        _("<b>Everything stays on this computer:</b> images are not sent anywhere, and no server is needed."),
        _(
            "<b>First use:</b> BoneSAM asks once to install ONNX Runtime (about 20 MB), the one "
            "package that 3D Slicer lacks. Without a network, the message that then appears names"
            " the file to copy here and how to install it."
        ),
        _(
            "<b>NVIDIA graphics card:</b> Advanced, Install GPU support, before segmenting "
            "anything in this session. It is not needed: the CPU takes seconds."
        ),
        _(
            "<b>A message says the volume cannot be used?</b> Color and 4D images have to be "
            "turned into gray-value volumes first, and a warping transform has to be hardened "
            "(module Transforms)."
        ),
    )
    return "\n".join(part if part.startswith("<ol>") else f"<p>{part}</p>" for part in paragraphs)


def acknowledgementText() -> str:
    """HTML."""
    return "\n".join(
        f"<p>{part}</p>"
        for part in (
            _(
                "BoneSAM follows the ideas of Segment Anything (Kirillov et al., 2023) and of "
                "SegmentAnyBone (Gu et al., 2024). Code and weights: Apache License 2.0."
            ),
            _(
                "The sample scans are synthetic, made from BodyParts3D, © The Database Center for "
                "Life Science, licensed under CC Attribution 4.0 International."
            ),
        )
    )
