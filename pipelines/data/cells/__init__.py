"""What the cells of a text say: numbers and dates as people write them."""
