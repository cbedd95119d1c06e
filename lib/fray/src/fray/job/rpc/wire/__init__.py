"""The border: messages to values, errors to codes, tokens, clients and servers. Only this room and ``proto`` know connectrpc."""
