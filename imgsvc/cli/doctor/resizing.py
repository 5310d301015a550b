"""A script: print the seconds of a resize with SIMD code and of the same one without. It imports nothing but Pillow."""

import time

from PIL import Image

TURNS = 5


def main() -> None:
    """Resize colours, and floating-point samples, for which pillow-simd has no SIMD code; the best of some turns."""
    noise = Image.effect_noise((1200, 900), 60)
    colour, scalar = Image.merge("RGB", (noise, noise, noise)), noise.convert("F")
    best = [float("inf"), float("inf")]
    for _ in range(TURNS):  # alternately, so that other load slows both
        for index, image in enumerate((colour, scalar)):
            began = time.perf_counter()
            image.resize((300, 225), Image.Resampling.LANCZOS)
            best[index] = min(best[index], time.perf_counter() - began)
    print(*best)  # noqa: T201


if __name__ == "__main__":
    main()
