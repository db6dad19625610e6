def load_encoder(*a, **k): raise NotImplementedError
