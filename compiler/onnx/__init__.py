"""Networks of other makers: ONNX files of multilayer perceptrons, read under limits and made into float graphs."""
