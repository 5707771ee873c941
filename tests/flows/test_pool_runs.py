"""What is said before stages are sent to a pool that cannot be there."""

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.pool_runs import check_deployments
from gift_core.errors import SettingsError


def test_pools_without_a_server_are_refused_by_name() -> None:
    with (
        temporary_settings(restore_defaults={PREFECT_API_URL}),
        pytest.raises(SettingsError, match="set PREFECT_API_URL to its address"),
    ):
        check_deployments(("finetune/finetune",))


def test_a_server_without_the_deployments_is_refused(prefect_api: None) -> None:
    with pytest.raises(SettingsError, match="has none; run `prefect deploy --all` there"):
        check_deployments(("finetune/finetune",))
