"""Pure influence functions of gradients: TracIn, self-influence, leverage. Arrays or store rows in, arrays out."""
