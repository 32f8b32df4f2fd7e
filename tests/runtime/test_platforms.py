"""Systems without file locks: nothing fails to be imported there, and the program says where it runs."""

from helpers.training import run_python

NOT_ON_WINDOWS = "import sys; sys.modules.update(dict.fromkeys(('fcntl', 'resource', 'pwd', 'grp', 'termios')))\n"


def test_on_windows_one_sentence_says_where_it_runs() -> None:
    started = "import vqa.cli; sys.platform = 'win32'; sys.argv = ['vqa', 'train', 'x.yaml']; vqa.cli.main()"
    ended = run_python("-c", NOT_ON_WINDOWS + started)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "vqa: runs on Linux and macOS; on Windows, run it in WSL (the Windows Subsystem for Linux)\n"


def test_every_module_is_imported_where_nothing_can_be_locked() -> None:
    """Other libraries are imported before: what they need there is their own affair."""
    code = (
        "import importlib, pkgutil, h5py, torch, torchvision, transformers, wandb, vqa\n"
        f"{NOT_ON_WINDOWS}"
        "names = [found.name for found in pkgutil.walk_packages(vqa.__path__, 'vqa.')]\n"
        "for name in names:\n"
        "    if not name.endswith('__main__'):\n"
        "        importlib.import_module(name)\n"
        "print(len(names))"
    )
    ended = run_python("-c", code)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout.split()[-1]) > 100
