"""The plug-in's tests run where the plug-in is installed, as tests/test_plugin.py does it."""

from backends import registered

collect_ignore = [] if "torch" in registered() else ["test_torch.py"]
