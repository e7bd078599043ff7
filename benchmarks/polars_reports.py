"""The default reports as Polars makes them: three group-bys over columns of text."""

import polars as pl

FIELDS = ("product_id", "device_id", "store_id", "referrer_url", "timestamp")


def reports(frame: pl.DataFrame) -> list[pl.DataFrame]:
    """By product, country and referrer."""
    views, visitors = pl.len().alias("view_count"), pl.col("device_id").drop_nulls().n_unique()
    last = pl.col("timestamp").str.to_datetime("%+", strict=False).max().alias("last_view_time")
    return [
        frame.group_by("product_id").agg(views, visitors, last),
        frame.group_by("store_id").agg(views, visitors),
        frame.group_by("referrer_url").agg(views),
    ]
