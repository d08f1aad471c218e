"""``python -m hccs_onnx``."""

import sys

from hccs_onnx.cli import main

if __name__ == "__main__":
    sys.exit(main())
