import numpy as np
import pytest

from fedsci.errors import InputError
from fedsci.privacy.poisson import poisson_sample


class Words:
    def __init__(self, words):
        self.words = np.array(words, dtype=np.uint64)

    def uint64(self, size):
        return self.words[:size]


def test_the_threshold_is_exact():
    quarter = 1 << 62
    words = Words([0, quarter - 1, quarter, 2**64 - 1])
    assert poisson_sample(4, 0.25, words).tolist() == [True, True, False, False]


def test_every_record_takes_part_at_rate_one():
    assert poisson_sample(3, 1.0, Words([])).tolist() == [True, True, True]


def test_the_largest_rate_below_one_does_not_overflow():
    assert poisson_sample(2, np.nextafter(1.0, 0.0), Words([0, 2**64 - 1])).tolist() == [True, False]


def test_no_records_give_no_sample(keystream):
    assert poisson_sample(0, 0.5, keystream).shape == (0,)


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.1, np.nan, np.inf])
def test_a_rate_that_is_no_probability_is_refused(rate, keystream):
    with pytest.raises(InputError, match="sample rate"):
        poisson_sample(3, rate, keystream)


def test_a_negative_number_of_records_is_refused(keystream):
    with pytest.raises(InputError):
        poisson_sample(-1, 0.5, keystream)
