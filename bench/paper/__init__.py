"""The paper, reproduced: finite networks, gradient descent, Adam, and the kernels that do or do not explain them."""
