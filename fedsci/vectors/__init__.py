"""Named tensors and one flat vector, and the layout that says which is where."""
