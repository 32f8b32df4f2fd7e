"""Fisher vectors: one long vector an image, made of all descriptors of its convolutional map.

Florent Perronnin, Jorge Sánchez and Thomas Mensink 2010, with scikit-image: descriptors are projected on their first
principal components; the vector is the gradient of their mean log-likelihood under a Gaussian mixture, with respect to
its weights, means and deviations; signed square root and L2 normalisation follow. (scikit-image gives the deviations'
part with the other sign, which changes no distance and no linear map's reach.)

Legend: `P` descriptors, `N` images, `R` regions, `C` channels of the map, `D` dimensions after the projection,
`K` components of the mixture, `V` = K + 2 K D length of the Fisher vector.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqa.errors import InputError, needs_extra
from vqa.features.cache.reader import FeatureCache
from vqa.features.cache.schema import read_arrays
from vqa.features.encoders.image_encoder import ImageEncoder, as_regions

FISHER = "fisher:"  # how the encoder's name of such a cache begins; the first encoder's name follows
GROUP = "fisher"  # where the parameters lie in the cache
RANKS = {"mean_C": 1, "axis_DC": 2, "weight_K": 1, "mean_KD": 2, "variance_KD": 2}
ITERATIONS = 200  # of the mixture's fit, at most


@dataclass(frozen=True)
class FisherCode:
    """Projection and mixture, all float64.

    Attributes:
        mean_C, axis_DC: descriptors lose their mean and are projected on these axes.
        weight_K, mean_KD, variance_KD: the mixture, with diagonal covariances.
        settings: how they were fitted, ready for JSON.
    """

    mean_C: NDArray[np.float64]
    axis_DC: NDArray[np.float64]
    weight_K: NDArray[np.float64]
    mean_KD: NDArray[np.float64]
    variance_KD: NDArray[np.float64]
    settings: Mapping[str, Any]

    @property
    def length(self) -> int:
        """`V`."""
        return self.weight_K.size + 2 * self.mean_KD.size

    def arrays(self) -> dict[str, NDArray[np.float64]]:
        """The parameters by their place in a cache."""
        return {f"{GROUP}/{name}": value for name, value in vars(self).items() if isinstance(value, np.ndarray)}

    def digest(self, encoder_sha256: str) -> str:
        """SHA-256 of the parameters together with those of the encoder below: 64 hexadecimal digits."""
        digest = hashlib.sha256(encoder_sha256.encode())
        for name, array in sorted(self.arrays().items()):
            digest.update(f"{name} {array.shape}\n".encode() + np.ascontiguousarray(array, dtype="<f8").tobytes())
        return digest.hexdigest()

    @cached_property
    def mixture(self) -> Any:
        """The mixture as scikit-learn's object."""
        with needs_extra("fisher", "Fisher vectors"):
            from sklearn.mixture import GaussianMixture

        mixture = GaussianMixture(len(self.weight_K), covariance_type="diag")
        mixture.weights_, mixture.means_, mixture.covariances_ = self.weight_K, self.mean_KD, self.variance_KD
        mixture.precisions_cholesky_ = 1 / np.sqrt(self.variance_KD)
        return mixture

    def project(self, descriptor_PC: NDArray[np.floating]) -> NDArray[np.float64]:
        """Descriptors on the principal axes, `[P, D]`."""
        return (descriptor_PC.astype(np.float64) - self.mean_C) @ self.axis_DC.T

    def encode(self, feature_NRC: Tensor) -> Tensor:
        """One Fisher vector an image: float32 `[N, 1, V]` on the CPU, of length 1."""
        with needs_extra("fisher", "Fisher vectors"):
            from skimage.feature import fisher_vector

        found = [
            fisher_vector(self.project(feature_RC.numpy()), self.mixture, improved=True)
            for feature_RC in feature_NRC.float().cpu()
        ]
        return torch.from_numpy(np.array(found, dtype=np.float32).reshape(len(found), 1, self.length))


def fit_code(
    descriptor_PC: NDArray[np.floating], components: int, dimensions: int, seed: int, settings: Mapping[str, Any]
) -> FisherCode:
    """Fit projection and mixture.

    Raises:
        InputError: when there are too few descriptors or channels.
    """
    with needs_extra("fisher", "Fisher vectors"):
        from skimage.feature import learn_gmm
        from sklearn.decomposition import PCA

    count, channels = descriptor_PC.shape
    if not 1 <= dimensions <= channels:
        raise InputError(f"{dimensions} dimensions: must be 1 to {channels}, the channels of the map")
    if components < 1 or count < max(components, dimensions):
        raise InputError(f"{count:,} descriptors are too few for {components} components of {dimensions} dimensions")
    pca = PCA(dimensions, svd_solver="covariance_eigh").fit(descriptor_PC.astype(np.float64))
    options = {"covariance_type": "diag", "random_state": seed, "max_iter": ITERATIONS}
    mixture = learn_gmm(pca.transform(descriptor_PC.astype(np.float64)), n_modes=components, gm_args=options)
    return FisherCode(
        mean_C=pca.mean_,
        axis_DC=np.ascontiguousarray(pca.components_),
        weight_K=mixture.weights_,
        mean_KD=mixture.means_,
        variance_KD=mixture.covariances_,
        settings=settings,
    )


def read_code(path: Path) -> tuple[FisherCode, dict[str, Any]]:
    """The parameters in a cache of Fisher vectors, and the attributes of the encoder below.

    Raises:
        InputError: when the file is missing, damaged, or holds no Fisher vectors.
    """
    attributes = FeatureCache(path).attributes
    if not attributes["encoder"].startswith(FISHER):
        raise InputError(f"{path}: holds {attributes['encoder']} features, no Fisher vectors")
    settings, base = attributes["preprocessing"].get("fisher", {}), json.loads(attributes.get("base") or "{}")
    lacking = [key for key in ("components", "dimensions", "images") if not isinstance(settings.get(key), int)]
    if lacking or not base or base["encoder"].startswith(FISHER):
        raise InputError(
            f"{path}: does not say which encoder is below its Fisher vectors, or how they were fitted (attribute base, "
            f"preprocessing: fisher{'.' if lacking else ''}{', '.join(lacking)})"
        )
    ranks = {f"{GROUP}/{name}": rank for name, rank in RANKS.items()}
    found = read_arrays(path, ranks, "the parameters of its Fisher vectors")
    code = FisherCode(**{name: found[f"{GROUP}/{name}"] for name in RANKS}, settings=settings)
    (dimensions, channels), components = code.axis_DC.shape, len(code.weight_K)
    fitting = code.mean_C.shape == (channels,) and {code.mean_KD.shape, code.variance_KD.shape} == {
        (components, dimensions)
    }
    if not fitting or not (code.variance_KD > 0).all():
        raise InputError(f"{path}: the parameters of its Fisher vectors do not fit together")
    return code, base


def fisher_encoder(base: ImageEncoder, code: FisherCode) -> ImageEncoder:
    """An encoder of images whose output becomes a Fisher vector.

    Raises:
        InputError: when the encoder's channels are not those that the parameters were fitted on.
    """
    if base.channels != len(code.mean_C):
        raise InputError(f"{base.name} {base.layer} has {base.channels} channels, the parameters {len(code.mean_C)}")
    encoder = ImageEncoder(
        base.network,
        name=f"{FISHER}{base.name}",
        layer=base.layer,
        preparation=base.preparation,
        weights_origin=f"{base.weights_origin}; {describe(code.settings)}",
        # The code was fitted on what a cache gives, which is float16.
        read_output=lambda output: code.encode(as_regions(base.read_output(output)).half()).to(base.mean_311.device),
        shape=(1, code.length),
    )
    encoder.precision = base.precision
    encoder.weights_sha256 = code.digest(base.weights_sha256)
    encoder.preprocessing = fisher_preprocessing(base.preprocessing, code)
    return encoder


def fisher_preprocessing(preprocessing: Mapping[str, Any], code: FisherCode) -> dict[str, Any]:
    """What a cache of Fisher vectors states under `preprocessing`."""
    return {**preprocessing, "fisher": dict(code.settings)}


def describe(settings: Mapping[str, Any]) -> str:
    """One sentence."""
    return (
        f"Fisher vectors of {settings['components']} components in {settings['dimensions']} dimensions, fitted on "
        f"{settings['images']:,} images"
    )
