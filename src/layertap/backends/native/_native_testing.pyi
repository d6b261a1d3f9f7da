from typing import Any

def __getattr__(name: str) -> Any: ...  # kernels on their own, in builds for tests only
