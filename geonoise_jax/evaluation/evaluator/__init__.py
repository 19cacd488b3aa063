"""One call from workdirs to numbers that can be compared: samples and features kept, records, tables and a page."""
