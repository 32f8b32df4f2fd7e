"""What torchrun says to a process, and which GPU is whose."""

import pytest
import torch

from vqa.errors import InputError
from vqa.runtime import distributed
from vqa.runtime.distributed import ALONE, Group, joined, launched, local_device

SET = {
    "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500",
}  # fmt: skip


def test_what_torchrun_sets_is_read() -> None:
    assert launched({}) == ALONE
    assert launched({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}) == ALONE
    assert launched(SET) == Group(3, 4)


@pytest.mark.parametrize(
    "wrong",
    [{"RANK": "x"}, {"RANK": "1"}, {"WORLD_SIZE": "0"}, {"LOCAL_WORLD_SIZE": "two"}, {"WORLD_SIZE": "2"}]
    + [SET | {"RANK": "4"}, SET | {"RANK": "-1"}, SET | {"LOCAL_RANK": "-1"}]
    + [{key: value for key, value in SET.items() if key != name} for name in ("RANK", "LOCAL_RANK", "MASTER_PORT")],
)
def test_what_contradicts_itself_is_one_message(wrong: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"not what torchrun sets; unset them to run one process") as caught:
        launched(wrong)
    name, value = next(iter(wrong.items()))
    assert f"{name}={value}" in str(caught.value)
    for name in SET:
        monkeypatch.delenv(name, raising=False)
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="not what torchrun sets"), joined():
        pass


def test_processes_share_a_gpu_only_where_they_may(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert local_device("cuda") == torch.device("cuda") and local_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(distributed, "current_group", lambda: Group(3, 4))
    for name, value in (SET | {"LOCAL_RANK": "3", "LOCAL_WORLD_SIZE": "4"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="started 4 processes on a machine with 2 GPUs; take --nproc-per-node 2"):
        local_device("cuda")
    assert local_device("cuda", shared=True) == torch.device("cuda", 1) and chosen == [1]
