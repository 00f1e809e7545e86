"""Draw the README's picture of the viewer. Run it when the page or the weights change:

.venv-web/bin/python -m Testing.browser.viewer_picture [GIF]
"""

import io
import sys
from pathlib import Path

from PIL import Image

from Testing.browser.site import ROOT, SAMPLES, Visit, browser, sample, serving

PICTURE = ROOT / "Resources" / "Screenshots" / "viewer.png"
SIZE = (1100, 680)  # of the animation


def main(animation):
    frames = []
    with serving(SAMPLES / "hip_ct.nii.gz", bright=False) as (address, _), browser() as chromium:
        page = Visit(chromium, address).wait_for_scan("hip_ct.nii.gz")

        def frame(times=1):
            shot = Image.open(io.BytesIO(page.settle(2).page.screenshot())).convert("RGB")
            frames.extend([shot] * times)
            return shot

        for name in ("right femur", "left femur"):
            scan = sample("hip_ct", name)
            low, high, middle = scan.corners()
            page.go_to("Green", middle)
            frame()
            page.draw_box("Green", low, high)
            frame()
            page.wait_for_mask()
            page.page.fill('[data-test="name"]', name)
            shot = frame(3)
            if name == "right femur":
                page.act("accept").wait_for(lambda: page.panel["segments"], "a segment")
                page.settle(2).press("r")  # its surface is there by then
                frame(2)
        shot.quantize(256, dither=Image.Dither.NONE).save(PICTURE, optimize=True)
        print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size // 1000} kB")
    if animation is not None:
        small = [
            one.resize(SIZE, Image.Resampling.LANCZOS).quantize(96, dither=Image.Dither.NONE)
            for one in frames
        ]
        small[0].save(animation, save_all=True, append_images=small[1:], duration=900, loop=0, optimize=True)
        print(f"{animation}: {animation.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
