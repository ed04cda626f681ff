"""What lies on the node's disk lies there encrypted: keys, databases, tables and files."""
