"""The ONNX operator ``hccs::HCCS``: schema, function body, and Python implementations."""
