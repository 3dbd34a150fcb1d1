"""Contract kits and toy models: inherit a kit's test class to hold your own rule, source or index to the contract."""
