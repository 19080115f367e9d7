"""The Durable Streams Yjs protocol over aiohttp: documents and presence for clients that have no WebSocket."""
