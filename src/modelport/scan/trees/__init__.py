"""Tree models: what must hold before a C++ library may see them."""
