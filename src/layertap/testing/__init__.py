"""The conformance suite that every model family passes, for pytest; needs transformers and torch.

A family is a `FamilyRow`; a test module lists its rows and subclasses `SmallModels` and `RealSizeModels`:

    from layertap.testing.families import FamilyRow
    from layertap.testing.suite import RealSizeModels, SmallModels

    class TestSmallModels(SmallModels):
        rows = ROWS
"""
