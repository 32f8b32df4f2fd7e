"""Parts from outside the package: a user's files, and an installed package with entry points.

The modules beside this one are what a user may have written; the tests import them, or write their text elsewhere.
"""

from pathlib import Path

HERE = Path(__file__).parent
FUSION, QUESTION_ENCODER, LOSS, IMAGE_ENCODER, FORMAT = (
    (HERE / f"{name}.py").read_text(encoding="utf-8")
    for name in ("fusion", "question_encoder", "loss", "image_encoder", "format")
)


def write_module(folder: Path, name: str, source: str) -> Path:
    """A module of that name in a folder; returns its file."""
    path = folder / f"{name}.py"
    path.write_text(source, encoding="utf-8")
    return path


def install(site: Path, package: str, source: str, entry_points: dict[str, str], version: str = "1.2") -> Path:
    """What an installer leaves of a package with one module, `part`; returns the module's file.

    Args:
        site: the folder of installed packages, to be on `sys.path`.
        entry_points: group and name, as "vqa.fusions mine", to what they name.
    """
    (site / package).mkdir(parents=True)
    (site / package / "__init__.py").touch()
    info = site / f"{package}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n", encoding="utf-8")
    lines = [f"[{key.split()[0]}]\n{key.split()[1]} = {value}\n" for key, value in entry_points.items()]
    (info / "entry_points.txt").write_text("".join(lines), encoding="utf-8")
    (info / "RECORD").write_text(f"{package}/__init__.py,,\n{package}/part.py,,\n", encoding="utf-8")
    return write_module(site / package, "part", source)
