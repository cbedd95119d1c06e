"""The border: messages to values, errors to codes, tokens, clients and servers; with ``proto`` the only room for connectrpc."""
