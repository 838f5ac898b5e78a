"""Which stores are the same, for those who keep something for one of them."""

from itertools import combinations

import pytest

from imgproxy_cache.core.location import (
    AzureLocation,
    FolderLocation,
    GcsLocation,
    S3Location,
    StoreLocation,
    whereabouts,
)

STORES: tuple[StoreLocation, ...] = (
    S3Location("images", "", "https://a", "auto"),
    S3Location("images", "a", "https://a", "auto"),
    S3Location("images", "", "https://b", "auto"),
    GcsLocation("images", ""),
    AzureLocation("images", "", "mine"),
    AzureLocation("images", "", "theirs"),
    AzureLocation("images", "", "mine https://a"),
    FolderLocation("/images"),
)


@pytest.mark.parametrize(("one", "other"), [*combinations(STORES, 2)], ids=whereabouts)
def test_two_stores_are_not_in_one_place(one: StoreLocation, other: StoreLocation) -> None:
    assert whereabouts(one) != whereabouts(other)
