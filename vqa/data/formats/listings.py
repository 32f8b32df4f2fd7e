"""The sets that `vqa.data.formats.listed` reads: where each keeps its files, and what its fields are called."""

from vqa.data.formats.listed import Listing, Record

COCO_2014 = ("COCO_train2014_{:012d}.jpg", "COCO_val2014_{:012d}.jpg", "{:012d}.jpg")
SLAKE_FILES = {"train": ("train.json",), "val": ("validate.json", "validation.json"), "test": ("test.json",)}
RAD_PUBLIC = "VQA_RAD Dataset Public.json"


def _rad_split(record: Record, split: str, file: str) -> bool:
    """Both splits of VQA-RAD stand in one file; `phrase_type` begins with "test" in those of the test."""
    return file != RAD_PUBLIC or str(record.get("phrase_type")).startswith("test") == (split == "test")


def _english(record: Record, split: str, file: str) -> bool:
    return record.get("q_lang") == "en"


def _chinese(record: Record, split: str, file: str) -> bool:
    return record.get("q_lang") == "zh"


SLAKE = Listing(
    about="SLAKE: questions in English and Chinese about radiology images",
    files=SLAKE_FILES,
    image="img_name",
    folders=("imgs",),
    id="qid",
    question_type="content_type",
    answer_type="answer_type",
    hidden=(),
)

LISTINGS: dict[str, Listing] = {
    "a_okvqa": Listing(
        about="A-OKVQA: questions on COCO 2017 photographs that need knowledge; ten answers and four choices each",
        files={split: (f"aokvqa_v1p0_{split}.json",) for split in ("train", "val", "test")},
        image="image_id",
        names=("{:012d}.jpg", *COCO_2014[:2]),
        folders=("{split}2017", "images"),
        answers=("direct_answers",),
        choices="choices",
        correct="correct_choice_idx",
    ),
    "textvqa": Listing(
        about="TextVQA: questions about text in photographs of Open Images, ten answers each",
        files={split: (f"TextVQA_0.5.1_{split}.json",) for split in ("train", "val", "test")},
        image="image_id",
        names=("{}.jpg",),
        folders=("train_images", "test_images"),
    ),
    "st_vqa": Listing(
        about="ST-VQA: questions about scene text (task 3)",
        files={split: (f"{split}_task_3.json",) for split in ("train", "test")},
        image="file_path",
        folders=("{split}", "images"),
    ),
    "docvqa": Listing(
        about="DocVQA: questions about scanned documents",
        files={split: (f"{split}_v1.0_withQT.json", f"{split}_v1.0.json") for split in ("train", "val", "test")},
        image="image",
        folders=("{split}", "spdocvqa_images"),
        id="questionId",
    ),
    "infographicvqa": Listing(
        about="InfographicVQA: questions about infographics",
        files={
            split: (f"infographicsVQA_{split}_v1.0_withQT.json", f"infographicsVQA_{split}_v1.0.json")
            for split in ("train", "val", "test")
        },
        image="image_local_name",
        folders=("infographicsvqa_images", "images"),
        id="questionId",
    ),
    "chartqa": Listing(
        about="ChartQA: questions about charts, written by people and by a machine",
        files={split: (f"{split}_human.json", f"{split}_augmented.json") for split in ("train", "val", "test")},
        image="imgname",
        folders=("{split}/png",),
        question="query",
        answers=("label",),
        all_files=True,
        hidden=(),
    ),
    "slake": SLAKE,
    "slake_en": SLAKE._replace(about="SLAKE, the questions in English", where=_english),
    "slake_zh": SLAKE._replace(about="SLAKE, the questions in Chinese", where=_chinese),
    "vqa_rad": Listing(
        about="VQA-RAD: questions about radiology images; train and test share images (data.shares_images: published)",
        files={"train": ("trainset.json", RAD_PUBLIC), "test": ("testset.json", RAD_PUBLIC)},
        image="image_name",
        folders=("VQA_RAD Image Folder", "images"),
        id="qid",
        question_type="question_type",
        answer_type="answer_type",
        where=_rad_split,
        hidden=(),
    ),
    "pathvqa": Listing(
        about="PathVQA: questions about pathology images",
        files={split: (f"{split}_qa.pkl", f"{split}_qa.json") for split in ("train", "val", "test")},
        image="image",
        names=("{}.jpg",),
        folders=("{split}",),
        hidden=(),
    ),
    "vivqa": Listing(
        about="ViVQA: COCO-QA's questions in Vietnamese",
        files={split: (f"{split}.csv",) for split in ("train", "test")},
        image="img_id",
        names=(*COCO_2014, "{}.jpg"),
        id="",
        question_type="type",
        hidden=(),
    ),
    "openvivqa": Listing(
        about="OpenViVQA: questions in Vietnamese about photographs of Vietnam, answered in sentences",
        files={split: (f"vlsp2023_{split}_data.json",) for split in ("train", "dev", "test")},
        image="image",
        folders=("{split}ing-images", "{split}-images", "images"),
        id="id",
    ),
    "fm_iqa": Listing(
        about="FM-IQA: questions in Chinese about COCO photographs, answered in sentences",
        files=dict.fromkeys(("train", "val"), ("FM-CH-QA.json",)),
        image="image_id",
        names=COCO_2014,
        folders=("{split}2014", "images"),
        question="Question",
        answers=("Answer",),
    ),
}
