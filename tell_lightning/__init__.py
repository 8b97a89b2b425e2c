"""Token-Efficient Leverage Learning (TELL, arXiv 2404.00914) on PyTorch Lightning."""

__version__ = "0.1.0"
