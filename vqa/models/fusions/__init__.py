"""Fusions: how an image and a question become one vector. One file each; a new one is one line more here."""

from vqa.models.contracts import Fusion
from vqa.models.fusions.attended import Attended
from vqa.models.fusions.ban import BAN
from vqa.models.fusions.block import Block
from vqa.models.fusions.block_tucker import BlockTucker
from vqa.models.fusions.co_attention import CoAttention
from vqa.models.fusions.concat import Concat
from vqa.models.fusions.counter import CounterFusion
from vqa.models.fusions.dppnet import DPPNet
from vqa.models.fusions.film import FiLM
from vqa.models.fusions.gated_cross_attention import GatedCrossAttention
from vqa.models.fusions.gated_product import GatedProduct
from vqa.models.fusions.gmu import GMU
from vqa.models.fusions.graph import Graph
from vqa.models.fusions.image_only import ImageOnly
from vqa.models.fusions.lmf import LMF
from vqa.models.fusions.mac import MAC
from vqa.models.fusions.mcan import MCAN
from vqa.models.fusions.mcb import MCB
from vqa.models.fusions.mfb import MFB
from vqa.models.fusions.mfh import MFH
from vqa.models.fusions.mlb import MLB
from vqa.models.fusions.mmnasnet import MMNasNet
from vqa.models.fusions.multi_glimpse import MultiGlimpse
from vqa.models.fusions.murel import MuRel
from vqa.models.fusions.mutan import MUTAN
from vqa.models.fusions.prefix_lm import PrefixLM
from vqa.models.fusions.product import Product
from vqa.models.fusions.question_only import QuestionOnly
from vqa.models.fusions.relation import Relation
from vqa.models.fusions.resampler import ResamplerFusion
from vqa.models.fusions.single_stream import SingleStream
from vqa.models.fusions.stacked_attention import StackedAttention
from vqa.models.fusions.sum import Sum
from vqa.models.fusions.top_down import TopDown
from vqa.models.fusions.tucker import Tucker
from vqa.models.fusions.two_stream import TwoStream
from vqa.models.fusions.vis_lstm import VisLSTM

FUSIONS: dict[str, type[Fusion]] = {
    "question_only": QuestionOnly,
    "image_only": ImageOnly,
    "concat": Concat,
    "sum": Sum,
    "product": Product,
    "gated_product": GatedProduct,
    "mcb": MCB,
    "mlb": MLB,
    "tucker": Tucker,
    "mutan": MUTAN,
    "mfb": MFB,
    "mfh": MFH,
    "block": Block,
    "block_tucker": BlockTucker,
    "lmf": LMF,
    "gmu": GMU,
    "film": FiLM,
    "vis_lstm": VisLSTM,
    "attended": Attended,
    "stacked_attention": StackedAttention,
    "multi_glimpse": MultiGlimpse,
    "counter": CounterFusion,
    "top_down": TopDown,
    "co_attention": CoAttention,
    "ban": BAN,
    "mcan": MCAN,
    "mmnasnet": MMNasNet,
    "single_stream": SingleStream,
    "two_stream": TwoStream,
    "resampler": ResamplerFusion,
    "mac": MAC,
    "relation": Relation,
    "graph": Graph,
    "murel": MuRel,
    "dppnet": DPPNet,
}
# those that run the language model of the question encoder, `{name: hf:NAME, words: embeddings}`
LANGUAGE_FUSIONS: dict[str, type[Fusion]] = {
    "prefix_lm": PrefixLM,
    "gated_cross_attention": GatedCrossAttention,
}
