"""The same task with a parameter more."""

import time

from taskplatform import task


@task(name="invoice", version=2)
def invoice(order: int, seconds: float = 0.005, currency: str = "EUR") -> dict[str, object]:
    time.sleep(seconds)
    return {"code": 2, "order": order, "currency": currency}
