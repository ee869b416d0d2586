"""Functions f(K) y of any kernel K."""
