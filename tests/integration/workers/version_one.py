"""A task before its new version."""

import time

from taskplatform import task


@task(name="invoice")
def invoice(order: int, seconds: float = 0.005) -> dict[str, object]:
    time.sleep(seconds)
    return {"code": 1, "order": order}
