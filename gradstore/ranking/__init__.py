"""From signals to a ranked list: signals, their combination, reasons in words, export."""
