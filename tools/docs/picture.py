"""Draws the picture of speed, as SVG for a light and for a dark page, from the record of `ftsys bench step`."""

from dataclasses import dataclass

from tools.docs.records import read_record


@dataclass(frozen=True)
class Colors:
    """Colours of one picture: text, faint text, the bar of ftsys, the bars of the peers."""

    text: str
    faint: str
    ours: str
    peer: str


LIGHT = Colors("#1f2328", "#59636e", "#1f6f8b", "#b0b7bf")
DARK = Colors("#f0f6fc", "#9198a1", "#58b4d1", "#5a636e")

PEERS = {
    "course": "stock Trainer, the course's recipe (float32, batch 8)",
    "cross-encoder": "sentence-transformers, CrossEncoderTrainer (bf16, batch 32)",
    "accelerate": "accelerate's plain loop (bf16, batch 32)",
    "best": "stock Trainer, its best recipe (bf16, batch 32, length-grouped)",
    "ours": "ftsys (bf16, batch 32, packed)",
}
"""Peer of the record -> its label."""

TITLE = "Real tokens per second, ftsys = 1"
WIDTH, ROW, TOP, BAR, SCALE = 500, 46, 58, 16, 440
"""Pixels. The picture is narrow, so that its text can still be read on a phone."""


def speed_picture(colors: Colors) -> str:
    """Return the SVG: real tokens per second of each peer, relative to ftsys, which is 1."""
    ratios = read_record("step-minilm")["ratios"]
    shares = {peer: 1 / ratios.get(f"minilm: optimizer steps: ours / {peer}", 1.0) for peer in PEERS}
    height = TOP + ROW * len(PEERS)
    slowest_first = sorted(PEERS, key=shares.__getitem__)
    rows = "".join(_row(number, peer, shares[peer], colors) for number, peer in enumerate(slowest_first))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="{TITLE}" font-family="system-ui, sans-serif" font-size="14">\n'
        f'<text x="0" y="18" font-size="16" font-weight="600" fill="{colors.text}">{TITLE}</text>\n'
        f'<text x="0" y="38" font-size="13" fill="{colors.faint}">MRPC, MiniLM-L6, two CPU cores; '
        "padding does not count</text>\n"
        f"{rows}</svg>\n"
    )


def _row(number: int, peer: str, share: float, colors: Colors) -> str:
    y = TOP + number * ROW
    color, weight = (colors.ours, 600) if peer == "ours" else (colors.peer, 400)
    text = f'font-weight="{weight}" fill="{colors.text}"'
    return (
        f'<text x="0" y="{y + 13}" {text}>{PEERS[peer]}</text>\n'
        f'<rect x="0" y="{y + 19}" width="{share * SCALE:.0f}" height="{BAR}" rx="2" fill="{color}"/>\n'
        f'<text x="{share * SCALE + 8:.0f}" y="{y + 32}" {text}>{share:.2f}</text>\n'
    )
