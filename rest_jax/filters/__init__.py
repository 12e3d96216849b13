"""The filter F of Eq. 2: which samples an Improve step learns from."""
