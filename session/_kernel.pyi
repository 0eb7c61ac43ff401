from session.kernel import Append

append: Append
