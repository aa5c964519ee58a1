"""A site as a Flower ClientApp: messages in, the site's handler, messages out."""

import time
from collections.abc import Callable

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedsci.errors import FedsciError
from fedsci.transport.codec import decode_request, encode
from fedsci.transport.messages import ACTIONS, LATE, Handler, Reply


def build_site_app(find_handler: Callable[[int], Handler]) -> ClientApp:
    """Return the ClientApp whose node number ``i`` answers with ``find_handler(i)``."""
    app = ClientApp()

    def respond(message: Message, context: Context) -> Message:
        # simulated sites wait for this machine's processors, and its clock is also the coordinator's
        if time.time() > message.metadata.created_at + message.metadata.ttl:
            return Message(encode(Reply(error=LATE)), reply_to=message)
        number = int(context.node_config["partition-id"])
        return answer(lambda request: find_handler(number)(request), message)

    for message_type in ACTIONS.values():
        category, action = message_type.split(".")
        register = {"query": app.query, "train": app.train, "evaluate": app.evaluate}[category]
        register(action)(respond)
    return app


def answer(handler: Handler, message: Message) -> Message:
    """Return the handler's reply to a message.

    Nothing but the public part of an error leaves: Flower would send the text of an exception to the
    coordinator, and that text can hold a record's values.
    """
    try:
        records = encode(handler(decode_request(message.content)))
    except FedsciError as error:
        records = encode(Reply(error=error.public()))
    except Exception:  # the handler has logged its own; whatever else it is, its text may hold a record's values
        records = encode(Reply(error=FedsciError("").public()))
    return Message(records, reply_to=message)
