"""Clipping thresholds that follow the norms of the gradient."""

import math
import statistics
from bisect import insort


class AutoClip:
    """A percentile of all norms so far, including this one (Seetharaman et al., 2020, arXiv 2007.14469)."""

    def __init__(self, percentile: float) -> None:
        """`percentile`: from 0 to 100; the authors use 10, which clips nine steps of ten."""
        self.percentile = percentile
        self.norms: list[float] = []  # in ascending order

    def __call__(self, norm: float) -> float:
        """The threshold for a gradient of this norm, interpolated linearly between two norms."""
        if math.isfinite(norm):
            insort(self.norms, norm)
        if not self.norms:
            return math.inf
        place = self.percentile / 100 * (len(self.norms) - 1)
        low, high = self.norms[math.floor(place)], self.norms[math.ceil(place)]
        return low + (place - math.floor(place)) * (high - low)


class ZClip:
    """Clips norms whose z-score is above a threshold (Kumar et al., 2025, arXiv 2504.02507).

    Mean and variance are exponential averages of the clipped norms. An outlier with score z is clipped to the score
    threshold^2 / z: the further out it is, the lower.
    """

    MEMORY = 0.97  # of the averages, per step
    WARM_UP = 25  # first steps, which are not clipped and give the initial mean and variance

    def __init__(self, threshold: float) -> None:
        """`threshold`: the z-score above which a norm is clipped; the authors use 2.5."""
        self.threshold = threshold
        self.first: list[float] = []
        self.mean = self.variance = 0.0

    def __call__(self, norm: float) -> float:
        """The threshold for a gradient of this norm."""
        if not math.isfinite(norm):
            return math.inf
        if len(self.first) < self.WARM_UP:
            self.first.append(norm)
            self.mean, self.variance = statistics.fmean(self.first), statistics.pvariance(self.first)
            return math.inf
        deviation = math.sqrt(self.variance)
        outlier = norm - self.mean > self.threshold * deviation
        limit = norm
        if outlier:  # threshold^2 / z standard deviations above the mean
            limit = self.mean + (self.threshold * deviation) ** 2 / (norm - self.mean)
        self.variance = self.MEMORY * self.variance + (1 - self.MEMORY) * (limit - self.mean) ** 2
        self.mean = self.MEMORY * self.mean + (1 - self.MEMORY) * limit
        return limit if outlier else math.inf
