"""What is found out about an artifact from its files, in a process that can do little.

`__main__` is that process. It gets the files through its standard input (`frames`), gives up what it does not need (`confine`),
looks at each file (`formats`, `scanner`), runs OCI's introspection tests, and writes one JSON object.
"""
