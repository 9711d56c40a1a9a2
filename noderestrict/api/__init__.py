"""msgspec Structs of exactly the API fields that are used; no behaviour."""
