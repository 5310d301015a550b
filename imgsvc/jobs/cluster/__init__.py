"""Rendering on other machines: tickets, the gateway to a Dask cluster, and what runs on the workers' side."""
