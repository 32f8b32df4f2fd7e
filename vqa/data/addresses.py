"""Where the published files are: addresses, sizes and checksums, as their owners or two independent lists state them.

A mirror is one more address in an archive's `urls`; they are tried in order.
"""

from typing import NamedTuple

BASE = "https://s3.amazonaws.com/cvmlp/vqa"
COCO = "http://images.cocodataset.org/zips"
CP = "https://computing.ece.vt.edu/~aish/vqacp"
COCO_QA = "http://www.cs.toronto.edu/~mren/imageqa/data/cocoqa"
DAQUAR = "http://datasets.d2.mpi-inf.mpg.de/mateusz14visual-turing"
TEXT_RATIO = 20  # bytes of JSON a byte of archive, as the VQA v2 annotations have it, rounded up


class Archive(NamedTuple):
    """One file to fetch.

    Attributes:
        urls: the official address, then mirrors.
        bytes: its published size, or None.
        checksum: "md5:…" or "sha256:…", or None where none is published.
        images: whether it holds images, which do not compress.
        sha256_begins: the first hexadecimal digits of its SHA-256, where only they are published.
    """

    urls: tuple[str, ...]
    bytes: int | None = None
    checksum: str | None = None
    images: bool = False
    sha256_begins: str = ""

    @property
    def name(self) -> str:
        """The file's name, the end of its address."""
        return self.urls[0].rpartition("/")[2]


def _vqa(folder: str, *names: str, sizes: dict[str, int] | None = None) -> tuple[Archive, ...]:
    return tuple(
        Archive((f"{BASE}/{folder}/{name}.zip",), (sizes or {}).get(name), sha256_begins=SHA256_BEGINS.get(name, ""))
        for name in names
    )


QUESTIONS = ("Questions_Train", "Questions_Val", "Questions_Test", "Annotations_Train", "Annotations_Val")
BINARY = tuple(f"{kind}_Binary_{split}2017" for kind in ("Questions", "Annotations") for split in ("Train", "Val"))
V2_SIZES = {
    "v2_Questions_Train_mscoco": 7_239_401,
    "v2_Questions_Val_mscoco": 3_494_929,
    "v2_Annotations_Train_mscoco": 21_708_861,
    "v2_Annotations_Val_mscoco": 10_518_930,
}
SHA256_BEGINS = {"v2_Annotations_Train_mscoco": "fb101bce", "v2_Annotations_Val_mscoco": "0caae7c8"}
PAIRS = ("Complementary_Pairs_Train", "Complementary_Pairs_Val")

DOWNLOADS: dict[str, tuple[Archive, ...]] = {
    "vqa_v1": _vqa("mscoco/vqa", *(f"{name}_mscoco" for name in QUESTIONS)),
    "vqa_v2": _vqa("mscoco/vqa", *(f"v2_{name}_mscoco" for name in (*QUESTIONS, *PAIRS)), sizes=V2_SIZES),
    "abstract": _vqa("abstract_v002/vqa", *(f"{name}_abstract_v002" for name in QUESTIONS)),
    "binary_abstract": _vqa("abstract_v002/vqa", *(f"{name}_abstract_v002" for name in BINARY)),
    "coco_images": (
        Archive((f"{COCO}/train2014.zip",), 13_510_573_713, "md5:0da8c0bd3d6becc4dcb32757491aca88", True),
        Archive((f"{COCO}/val2014.zip",), 6_645_013_297, "md5:a3d79f5ed8d289b7a7554ce06a5782b3", True),
        Archive((f"{COCO}/test2015.zip",), None, None, True),
    ),
    "abstract_images": tuple(
        Archive((f"{BASE}/abstract_v002/scene_img/scene_img_abstract_v002_{split}.zip",), images=True)
        for split in ("train2015", "val2015", "test2015")
    ),
    "binary_abstract_images": tuple(
        Archive((f"{BASE}/abstract_v002/scene_img/scene_img_abstract_v002_binary_{split}.zip",), images=True)
        for split in ("train2017", "val2017")
    ),
    **{
        f"vqa_cp_{version}": tuple(
            Archive((f"{CP}/vqacp_{version}_{split}_{kind}.json",))
            for split in ("train", "test")
            for kind in ("questions", "annotations")
        )
        for version in ("v1", "v2")
    },
    "coco_qa": (Archive((f"{COCO_QA}/cocoqa-2015-05-17.zip",)),),
    "daquar": (
        Archive((f"{DAQUAR}/qa.894.raw.train.txt",)),
        Archive((f"{DAQUAR}/qa.894.raw.test.txt",)),
        Archive((f"{DAQUAR}/nyu_depth_images.tar",), images=True),
    ),
}
