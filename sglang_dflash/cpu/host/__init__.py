"""What the CPU platform calls of SGLang, and where its functions take the place of SGLang's."""
