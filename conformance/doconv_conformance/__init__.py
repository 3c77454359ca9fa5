"""The conformance suite: any implementation of DO-Conv, in any language, checked against `doconv_core`."""
