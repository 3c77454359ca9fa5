"""`pytest --pyargs doconv_conformance`: the cases as tests of a port."""
