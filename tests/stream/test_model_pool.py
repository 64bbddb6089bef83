"""The models that a worker holds: loaded once, bounded, and let go."""

from __future__ import annotations

import asyncio
import gc
import weakref
from pathlib import Path

import pytest

import models.bundle
from models.bundle import list_bundles, load_bundle
from models.session import Session
from stream.model_pool import ModelPool, ModelUnavailableError

OWN, OTHER, THIRD = "cae-100hz", "vae-bilstm-100hz", "vae-bilstm-mha-100hz"


def test_a_model_is_loaded_once_and_let_go_when_nobody_needs_it(shipped: Session) -> None:
    async def main() -> None:
        pool = ModelPool(shipped)
        assert pool.get(OWN) is shipped
        assert pool.get(OTHER) is None
        loading = asyncio.create_task(pool.load(OTHER))
        first = await pool.load(OTHER)
        assert first is await loading is pool.get(OTHER)
        del loading
        assert (first.manifest.name, first.precision, first.backend) == (OTHER, "fp32", "onnxruntime")
        assert pool.criteria[OTHER].thresholds == load_bundle(OTHER).manifest.thresholds["fp32"]
        pool.keep([OTHER])
        assert pool.get(OTHER) is first
        gone = weakref.ref(first)
        del first
        pool.keep([])
        assert (pool.get(OTHER), pool.get(OWN)) == (None, shipped)
        assert pool.criteria.keys() == {OWN}
        async with asyncio.timeout(10):
            # The event loop holds on to results for a turn or two.
            while gone() is not None:
                await asyncio.sleep(0)
                gc.collect()
        pool.close()

    asyncio.run(main())


def test_a_model_that_a_request_needs_stays_until_a_bed_does(shipped: Session) -> None:
    async def main() -> None:
        pool = ModelPool(shipped)
        async with pool.holding(OTHER):
            pool.keep([])
            assert pool.get(OTHER) is not None
        pool.keep([])
        assert pool.get(OTHER) is None
        with pytest.raises(ModelUnavailableError):
            async with pool.holding("nonsense"):
                raise AssertionError("it is not there")
        pool.close()

    asyncio.run(main())


def test_no_more_models_are_held_than_it_may(shipped: Session) -> None:
    async def main() -> None:
        pool = ModelPool(shipped, most=2)
        results = await asyncio.gather(pool.load(OTHER), pool.load(THIRD), return_exceptions=True)
        assert pool.get(OTHER) is results[0]
        assert isinstance(results[1], ModelUnavailableError)
        assert str(results[1]) == f"model {THIRD}: this worker holds 2 already ({OWN}, {OTHER})"
        pool.keep([])
        assert (await pool.load(THIRD)).manifest.name == THIRD
        pool.close()

    asyncio.run(main())


def test_a_model_that_was_refused_can_be_tried_again(
    shipped: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo = models.bundle._ZOO

    async def main() -> None:
        pool = ModelPool(shipped)
        monkeypatch.setattr(models.bundle, "_ZOO", tmp_path)
        with pytest.raises(ModelUnavailableError, match=f"no model '{OTHER}': choose from"):
            await pool.load(OTHER)
        monkeypatch.setattr(models.bundle, "_ZOO", zoo)
        await pool.load(OTHER)
        pool.close()

    asyncio.run(main())


def test_all_shipped_models_see_the_same_windows(shipped: Session) -> None:
    async def main() -> None:
        pool = ModelPool(shipped)
        for name in list_bundles():
            await pool.load(name)
        assert pool.criteria.keys() == set(list_bundles())
        pool.close()

    asyncio.run(main())
