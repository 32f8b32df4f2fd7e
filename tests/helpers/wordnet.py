"""A miniature of the WordNet corpus, in the form that nltk reads."""

from pathlib import Path

# Each noun sense: its words, and the sense above it. Depths: entity 1, object 2, furniture 3, table 4, …
TREE = {
    "entity": ("entity", None),
    "object": ("object", "entity"),
    "furniture": ("furniture", "object"),
    "table": ("table", "furniture"),
    "chair": ("chair", "furniture"),
    "sofa": ("sofa couch", "furniture"),
    "night_stand": ("night_stand", "table"),
    "animal": ("animal", "entity"),
    "dog": ("dog", "animal"),
    "mascot": ("chair", "dog"),  # a second sense of "chair"
}


HEADER = "  1 This miniature has the form of WordNet 3.0 Copyright 2006\n"


def write_wordnet(folder: Path) -> Path:
    """The files that nltk's reader opens; senses refer to each other by their place in data.noun."""
    folder.mkdir()
    for kind in ("noun", "verb", "adj", "adv"):
        for name in (f"data.{kind}", f"index.{kind}"):
            (folder / name).write_text(HEADER)
        (folder / f"{kind}.exc").write_text("")
    (folder / "lexnames").write_text("00\tnoun.Tops\t1\n")

    def line(sense: str, offset_of: dict[str, int]) -> str:
        words, above = TREE[sense]
        names = words.split()
        pointer = f"001 @ {offset_of[above]:08d} n 0000" if above else "000"
        listed = " ".join(f"{name} 0" for name in names)
        return f"{offset_of[sense]:08d} 00 n {len(names):02x} {listed} {pointer} | made for a test\n"

    offset_of: dict[str, int] = dict.fromkeys(TREE, 0)  # every offset has eight digits, so lengths are known
    place = len(HEADER)
    for sense in TREE:
        size = len(line(sense, offset_of))
        offset_of[sense] = place
        place += size
    (folder / "data.noun").write_text(HEADER + "".join(line(sense, offset_of) for sense in TREE))

    senses_of: dict[str, list[str]] = {}
    for sense, (words, _) in TREE.items():
        for word in words.split():
            senses_of.setdefault(word, []).append(f"{offset_of[sense]:08d}")
    (folder / "index.noun").write_text(
        HEADER + "".join(f"{word} n {len(o)} 1 @ {len(o)} 0 {' '.join(o)}\n" for word, o in sorted(senses_of.items()))
    )
    return folder
